"""The node's own network: RDMA ports and physical network cards, as the kernel counts them."""
