"""Certificates are made here: hints are searched for, and only what the checker accepts is written."""

from redy.certificates.make import Refusal, certify_files

__all__ = ["Refusal", "certify_files"]
