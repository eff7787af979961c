"""Which pod holds which GPU, as the kubelet of the node tells it."""
