"""What changed, and when: markers of deploys, declared deploys, and what follows from one."""
