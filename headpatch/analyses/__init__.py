"""One file a question: what each verb of the command line computes."""
