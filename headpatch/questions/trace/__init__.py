"""The heads behind each token of an answer that both runs are made to say."""
