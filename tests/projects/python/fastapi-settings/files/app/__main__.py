import uvicorn
from app.settings import settings
def main(): uvicorn.run("app.main:app", host=settings.host, port=settings.port)
