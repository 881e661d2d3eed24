"""Which of some texts a picture shows, by how well the denoiser foretells the noise under each."""
