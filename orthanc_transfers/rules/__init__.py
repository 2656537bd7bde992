"""What is sent by itself: rules, their queue on disk, and who works it off."""
