"""What only this world's from-scratch models need: the stages before SFT, and the model that they begin with."""
