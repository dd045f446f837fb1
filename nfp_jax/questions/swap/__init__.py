"""What a mask's labels are worth to it: trained on them, and on others."""
