"""Fuzzing of what strangers can reach before anything is stored: verification, and the reading of what was signed.

`subjects` says what is fuzzed, `cases` what the bytes of the fuzzer mean, `promises` what must hold of every request.
The tests hold the same promises with hypothesis. Without atheris all but `engine` can be imported.
"""
