"""Recipe → weights: merge maths, checkpoints, a live model with resident experts, saving."""

import logging

# It warns of kernels that could be fetched when peft imports it, and of the dtype at every product.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
