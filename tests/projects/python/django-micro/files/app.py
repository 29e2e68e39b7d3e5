import sys
from django.conf import settings

settings.configure(DEBUG=True, ROOT_URLCONF=__name__)

if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
