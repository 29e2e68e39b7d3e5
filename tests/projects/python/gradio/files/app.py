import gradio as gr

demo = gr.Interface(fn=str, inputs="text", outputs="text")
demo.launch()
