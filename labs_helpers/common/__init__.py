"""What every room uses: progress bars, settings that are checked, printable text."""
