"""What training does: the loop over epochs and its parts."""
