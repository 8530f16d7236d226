"""What a network learns from and is judged by: built in, downloaded, your own, or made from others."""
