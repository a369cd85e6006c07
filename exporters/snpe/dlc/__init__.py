"""Reads Qualcomm DLC files: container, FlatBuffer records, graph, encodings and parameters. It never writes one."""
