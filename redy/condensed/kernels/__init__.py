"""All compiled code. A changed byte in this folder, and nothing outside it, makes numba compile afresh."""
