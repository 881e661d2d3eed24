"""What the embedded models are trained on: pictures, captions, composed scenes."""
