"""What must survive a power cut: files and tables. Knows nothing of the network or of images."""
