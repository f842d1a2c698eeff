"""What is looked into: loading a model, and finding its tokens, patches and answers."""
