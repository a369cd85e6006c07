"""How a runner reaches a device: local, ssh, adb, serial."""
