"""The embedded models: small, trained on openly licensed emoji."""
