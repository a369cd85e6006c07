"""How far an artefact's outputs are from the FP32 reference, and what that means for the people who use them."""
