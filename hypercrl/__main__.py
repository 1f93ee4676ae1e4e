"""python -m hypercrl"""

from hypercrl.cli import main

main()
