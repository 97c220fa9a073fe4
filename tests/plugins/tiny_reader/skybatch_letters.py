"""A reader in a distribution of its own: the letters of a word."""

from dataclasses import dataclass

from skybatch import InputReader, hookimpl


@dataclass
class LettersReader(InputReader):
    word: str = ""

    def __len__(self):
        return len(self.word)

    def download_batch(self, start_idx, end_idx, cache_dir):
        return [{"letter": letter} for letter in self.word[start_idx : end_idx + 1]]


@hookimpl
def skybatch_input_readers():
    return {"letters": LettersReader}
