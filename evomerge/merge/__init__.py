"""Recipe → weights: merge maths, checkpoints, a live model with resident experts, saving."""

import logging

# It warns of kernels that could be fetched when it is imported, and of the dtype at every product.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
