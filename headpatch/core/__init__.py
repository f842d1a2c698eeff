"""What every question stands on: the study, a pair opened, a dataset, the store and the output."""
