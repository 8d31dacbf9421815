"""More than two views of an image, of two sizes, and the policies that compare them."""
