"""Loading a trained model without running anything the user has not vouched for."""
