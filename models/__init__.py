"""What we look into: load a pipeline, speak one language about every family."""

import logging

# transformers says for each image processor that it falls back to Pillow, which is all that is wanted here.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision (not installed)" not in record.getMessage()
)
