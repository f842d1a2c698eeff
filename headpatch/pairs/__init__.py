"""What is looked at: drawn scenes, pairs of pictures, and regions of them."""
