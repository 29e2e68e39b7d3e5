from django.http import HttpResponse

PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Covibes Django example</title>
  </head>
  <body>
    <h1>Covibes Django example</h1>
    <p>Edit example/views.py and save: the server restarts by itself.</p>
  </body>
</html>
"""


def home(request):
    return HttpResponse(PAGE)
