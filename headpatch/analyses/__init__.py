"""What each verb of the command line computes: a file or a package a question.

In a package, ``one`` is about one pair of pictures and ``many`` about a dataset of them. The files
beside the packages are what several questions start from.
"""
