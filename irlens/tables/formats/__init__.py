"""Draws that other tools made: each format's file becomes a run, and qrels where the file judges."""

from irlens.tables.formats.draws import Imported as Imported
from irlens.tables.formats.recognise import FORMATS as FORMATS
from irlens.tables.formats.recognise import read as read
