"""What a datapoint and a flow are made of where arrays (members) or files (several) are many."""
