"""A finished or running study → leaderboard, comparison, model card, in any format."""
