"""The programs in tools/, and the starter that they made."""
