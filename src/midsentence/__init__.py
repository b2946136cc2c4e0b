"""midsentence: a latent space of sentences."""
