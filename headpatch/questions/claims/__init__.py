"""Which of these sentences does the verdict support? Its tables say, and experiments beside it."""
