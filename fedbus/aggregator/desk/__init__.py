"""What people and sites ask and say."""
