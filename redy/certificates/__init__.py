"""Certificates are made here: hints are searched for, and only what the checker accepts is written."""

from redy.certificates.make import Draft, Effort, Refusal, certify_files, draft

__all__ = ["Draft", "Effort", "Refusal", "certify_files", "draft"]
