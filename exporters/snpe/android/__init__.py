"""What an Android developer gets beside the DLC: how to push and run it, golden data, and snippets."""
