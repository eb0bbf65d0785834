"""What happens to a batch: claimed, folded, written, checkpointed; and who is in which lane."""
