"""What masks are like before anything is trained under them."""
