"""What each analysis offers to change, and what each change did."""
