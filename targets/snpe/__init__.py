"""Runs Snapdragon artefacts in the HTP simulator, or on a phone over adb."""
