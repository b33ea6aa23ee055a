"""The manuals as tables: registers, bits, encodings, offsets, reasons. No behaviour; each table names the section it comes from.

SDM means Intel's Software Developer's Manual (chapter numbers as since version 078), APM AMD's Architecture Programmer's Manual.
"""
