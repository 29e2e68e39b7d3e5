import gradio as gr

with gr.Blocks() as demo:
    pass
demo.launch(server_name="0.0.0.0", server_port=7001)
