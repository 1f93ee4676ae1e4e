"""What every room uses, and which knows none of them."""
