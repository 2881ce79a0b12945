"""What several files of this folder and below share is in modules beside this one."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
